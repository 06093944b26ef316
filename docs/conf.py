"""The documentation's site: `sphinx-build -W docs site`."""

from vggkit import __version__

project = "vggkit"
author = "The vggkit developers"
copyright = "the vggkit developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["*.py"]
source_suffix = {".md": "markdown"}
default_role = "code"
smartquotes = False  # --fit is an option, not a dash

myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # the changelog's versions stand a level below its title on purpose

autodoc_member_order = "alphabetical"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = f"vggkit {version}"
html_show_sphinx = False
html_copy_source = False
_narrower = {"code-font-size": "75%"}  # so that a table of 95 columns needs no scrolling
html_theme_options = {"light_css_variables": _narrower, "dark_css_variables": _narrower}
