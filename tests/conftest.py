"""What every test runs under: checked shapes, no network, and examples that do not depend on the clock."""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

# Before lisaseg is imported: every annotation in it, shapes included, is checked at run time.
install_import_hook("lisaseg", "beartype.beartype")

# Before huggingface_hub is imported, here or in a process that a test starts: no test may reach a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# A slow machine is no failure, and the same commit gives the same result.
settings.register_profile("lisaseg", deadline=None, derandomize=True)
settings.load_profile("lisaseg")
