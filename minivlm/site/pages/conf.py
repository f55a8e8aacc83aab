"""How Sphinx makes the pages. Nothing is executed, and nothing is fetched: neither by the build nor by a reader."""

import minivlm

project = author = "minivlm"
version = release = minivlm.__version__
language = "en"
extensions = ["myst_nb", "minivlm.site.extension"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # with tables
nb_mime_priority_overrides = [("html", "text/markdown", 5)]  # `source` shows both, and means the Markdown
myst_enable_extensions = ["dollarmath", "colon_fence"]

html_theme = "furo"
html_title = "minivlm"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch the pages found, which no browser does from a folder
