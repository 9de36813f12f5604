"""The version of the tool, as manifests and checkpoints note it."""

VERSION = "0.2.0"
TOOL = f"gqn-toolkit {VERSION}"
