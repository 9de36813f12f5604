#!/bin/sh
# From nothing to demo/prediction.png: the way a user goes, with the commands that a user types.
set -eu
step() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

step "1/5 Render 2200 scenes of rooms_ring_camera (1980 train, 220 test), no download needed"
gqn-data render rooms_ring_camera --scenes 2200 --root demo/data

step "2/5 Convert the TFRecords to zarr shards"
gqn-data convert rooms_ring_camera --root demo/data
gqn-data info demo/data/zarr/rooms_ring_camera
gqn-data view demo/data/zarr/rooms_ring_camera -o demo/scenes.png

step "3/5 Train the preset 'tiny' at 32x32"
if [ -d demo/run ]; then
    gqn train --resume demo/run
else
    gqn train --shards demo/data/zarr/rooms_ring_camera --preset tiny --out demo/run
fi

step "4/5 Evaluate on test scenes, beside two baselines"
gqn evaluate demo/run --context 1,3,5 --samples 16

step "5/5 Predict scenes that the network has not seen"
gqn sample demo/run -o demo/prediction.png
printf '\nLook at demo/scenes.png and demo/prediction.png\n'
