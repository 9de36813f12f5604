"""What the network is made of: recurrent cores, convolutions of joined maps, first parameters, closed forms.

How they make a GQN is in `gqn_model.model`; what reads the context views is in `representations`.
Floor: the lowest package, beside `loggers`. Imports nothing of the project but itself.
"""
