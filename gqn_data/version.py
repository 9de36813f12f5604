"""Version of the tool, as recorded in manifests and checkpoints."""

VERSION = "0.2.0"
TOOL = f"gqn-toolkit {VERSION}"
