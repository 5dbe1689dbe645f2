"""The site: `python -m sphinx -W --keep-going -b html docs site`."""

import inspect
import logging
import os
import re
from enum import EnumType
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import get_args

from docutils.nodes import Text, container, literal_block
from sphinx.ext.napoleon.docstring import NumpyDocstring
from sphinx.util.inspect import TypeAliasForwardRef, stringify_signature
from typer.main import get_command

from emroute.capability import capabilities
from emroute.cli import app as command_line
from emroute.cli.fit import fit
from emroute.testing import table as table_of

project = "emroute"
author = "The emroute developers"
project_copyright = author
version = release = installed_version("emroute")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = [".gitignore", "**/README.md", "jupyter_execute"]
templates_path = ["_templates"]
default_role = "py:obj"  # in docstrings, `emroute.em.fit` is a link where there is such an object
nitpicky = False

html_theme = "furo"
html_title = f"emroute {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
pygments_dark_style = "a11y-high-contrast-dark"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent)  # one look for all pictures
nb_execution_mode = "cache"  # a page is run again when its code has changed
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
logging.getLogger("jax").setLevel(logging.WARNING)  # it tells which devices it did not find

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Array": "Array"}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # as it is written, also inside a union
autodoc_typehints = "signature"
FOREIGN = "BaseEstimator, Exception, int, Module, NamedTuple, Protocol, tuple"  # whose members their own pages list
autodoc_default_options = {
    "members": True,
    "inherited-members": FOREIGN,
    "show-inheritance": True,
}
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
NumpyDocstring._parse_attribute_docstring = lambda docstring: list(docstring._lines)  # words before a colon are no type


def arrange(app, what, name, obj, options, lines):
    """Set the indented blocks of module docstrings, which are equations, as they stand; elsewhere bars are norms."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    if what != "module":
        return
    for place in range(len(lines) - 1, 0, -1):
        if not lines[place].startswith(" "):
            lines[place] = lines[place].replace("|", r"\|")
        elif not lines[place - 1].strip():
            lines[place:place] = ["::", ""]


def give_defaults(app, what, name, obj, options, lines):
    """Give the defaults of parameters, which docstrings leave to the signature, in the list of parameters."""
    if what not in ("class", "function", "method") or "Parameters" not in lines:
        return
    try:
        parameters = inspect.signature(obj.__init__ if what == "class" else obj).parameters
    except (TypeError, ValueError):
        return
    for place in range(lines.index("Parameters") + 2, len(lines)):
        if lines[place].startswith("---"):
            break  # the next section
        names = lines[place].split(", ")
        if all(each in parameters and parameters[each].default is not inspect.Parameter.empty for each in names):
            lines[place] += f" : default {', '.join(repr(parameters[each].default) for each in names)}"


def tell(app, what, name, obj, options, lines):
    """Say below each function what it declares that it can do."""
    if what in ("class", "function", "method") and (can := capabilities(obj)):
        lines += ["", ".. rubric:: Capabilities", "", f"float32 and float64; {can}".rstrip("; ") + "."]


def options():
    """Table the options of ``emroute fit``."""
    rows = ["| option | | default |", "| --- | --- | --- |"]
    hints = inspect.get_annotations(fit, eval_str=True)
    for option in get_command(command_line).commands["fit"].params:
        if option.param_type_name == "option":
            kind = get_args(hints[option.name])[0]
            kinds = [each for each in (kind, *get_args(kind)) if isinstance(each, EnumType)]
            choices = "".join(f" One of {', '.join(f'`{name}`' for name in each)}." for each in kinds)
            about = re.sub(r"--\w+", r"`\g<0>`", option.help) + choices
            default = option.show_default if isinstance(option.show_default, str) else option.default
            default = "" if default is None or default is False else default
            rows.append(f"| {', '.join(f'`{name}`' for name in option.opts)} | {about} | {default} |")
    return "\n".join(rows)


TABLES = {"capabilities": (table_of.libraries, table_of.table), "howto/files": (options,)}


def fill(app, docname, source):
    """Put tables, which are made of what the code declares, in the place of their names."""
    for table in TABLES.get(docname, ()):
        source[0] = source[0].replace(f"%{table.__name__}%", table())


FOR_FAMILIES = {"data", "marked", "remarks", "restored", "unfitted"}


def leave_out(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds to every estimator, and what mixtures have only for authors of families.

    The docstrings of the first link into its own site; the second are on the page of `emroute.mixture`.
    """
    foreign = str(getattr(obj, "__module__", "")).startswith("sklearn.") and not name.startswith("fit_")
    added = foreign or name.endswith("_request")
    of_mixture = "Mixture." in getattr(obj, "__qualname__", "") and app.env.docname != "api/generated/emroute.mixture"
    return True if added or (of_mixture and name in FOR_FAMILIES) else None


def unhide(app, what, name, obj, options, signature, returns):
    """Give classes of Flax the signature of their constructor; what makes them has none of its own."""
    if what == "class" and signature == "(*args: Any, **kwargs: Any)":
        own = inspect.signature(obj.__init__)
        parameters = [parameter for name, parameter in own.parameters.items() if name != "self"]
        return stringify_signature(own.replace(parameters=parameters), show_return_annotation=False), None
    return None


def reach(app, pagename, templatename, context, doctree):
    """Let the keyboard scroll what may be too wide; for screen readers, captions have levels, and lists have items."""
    for part, plain, reachable in (
        ("body", "<pre>", '<pre tabindex="0">'),
        ("body", '<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
        ("body", 'role="doc-biblioentry"', 'role="listitem"'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
    ):
        if part in context:
            context[part] = context[part].replace(plain, reachable)


def for_readers(app, doctree):
    """Show commands of the shell without the cell's magic, and programs without the checks that the build runs."""
    for cell in doctree.findall(container):
        if cell.get("nb_element") != "cell_code_source":
            continue
        for block in cell.findall(literal_block):
            text = block.astext()
            if text.startswith("%%bash"):
                block["language"], text = "bash", text.partition("\n")[2]
            shown = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("assert ")).strip("\n")
            block.rawsource, block.children = shown, [Text(shown)]


def tell_language(app, page, template, context, doctree):
    """Say of a translation what language it is in; screen readers and search engines ask."""
    if page.startswith("zh/"):
        context["language"] = "zh-Hans"


def setup(app):
    app.connect("html-page-context", tell_language)
    app.connect("html-page-context", reach, priority=900)  # the theme has its say before
    app.connect("autodoc-process-signature", unhide)
    app.connect("autodoc-process-docstring", give_defaults, priority=400)  # before napoleon reads the list
    app.connect("autodoc-process-docstring", arrange)
    app.connect("autodoc-process-docstring", tell)
    app.connect("env-get-outdated", lambda *_: list(TABLES))  # they change with the code
    app.connect("source-read", fill)
    app.connect("doctree-read", for_readers)
    app.connect("autodoc-skip-member", leave_out)
