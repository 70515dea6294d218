"""The questions of the build driver as pure functions: what may be chosen, and the preset that choices make."""
