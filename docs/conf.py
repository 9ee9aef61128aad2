"""Sphinx's configuration: `./dev site` makes dist/site from the pages of this directory."""

project = "poorwill"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "poorwill"
myst_heading_anchors = 3
myst_fence_as_directive: list[str] = []
exclude_patterns = ["*.py"]
suppress_warnings = [
    "misc.highlighting_failure",  # mermaid, and TOML with an ellipsis
    "myst.xref_missing",  # links into the repository, such as ../README.md
]
html_show_copyright = False
