"""Configuration of the site. `make docs` builds it; `docs/generate` writes the generated pages."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

project = "ablate"
author = "The ablate developers"
copyright = author
_pyproject = tomllib.loads((generate.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
version = release = _pyproject["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "generate",
]
root_doc = "index"
exclude_patterns = ["generate", "_static", "**/.ipynb_checkpoints"]
templates_path: list[str] = []
language = "en"

# Markdown and notebooks. ABLATE_DOCS_EXECUTE=off leaves out the outputs of the tutorials and most
# pictures of the zoo: the test does so.
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
nb_execution_mode = os.environ.get("ABLATE_DOCS_EXECUTE", "force")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # kernels that are compiled at their first use say so
nb_render_markdown_format = "myst"  # tables of a study are Markdown

# Python reference. Docstrings are plain text with `code`; generate.docstrings makes them reStructuredText.
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "extra_repr"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Every reference must resolve, but for names of other libraries: their inventories would need a network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!ablate\.).*")]

html_theme = "pydata_sphinx_theme"
html_title = f"ablate {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_favicon = "_static/mark.svg"
html_sidebars = {"index": [], "glossary": [], "changelog": [], "getting-started": []}
html_theme_options = {
    "logo": {"text": "ablate", "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark-high-contrast",
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
