"""An explanation as a fragment of HTML that stands alone: inline styles, no script, no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .explain_numbers import duration, percent
from .explain_text import bounds, sections

if TYPE_CHECKING:
    from .explain import Explanation

TEMPLATE = """\
<div style="font-family: sans-serif; max-width: 60em; line-height: 1.4">
<h3 style="margin: 0 0 0.4em">{{ x.name }}, compiled for {{ x.target }}</h3>
<pre style="background: #f4f4f0; padding: 0.7em; overflow-x: auto; \
color: #222">{{ x.cascade }}</pre>
{% for title, lines in plain %}
<h4 style="margin: 1em 0 0.2em">{{ title }}</h4>
<pre style="margin: 0; white-space: pre-wrap">{{ lines | join("\\n") }}</pre>
{% endfor %}
{% for kernel, terms in rooflines %}
<h4 style="margin: 1em 0 0.2em">Roofline of {{ x.machine }}: {{ kernel }}</h4>
<table style="border-collapse: collapse">
{% for unit, time, share, width, colour in terms %}
<tr>
<td style="padding: 0 1em 0 0; text-align: left">{{ unit }}</td>
<td style="padding: 0 1em; text-align: right">{{ time }}</td>
<td style="padding: 0 1em; text-align: right">{{ share }}</td>
<td style="width: 20em; text-align: left"><div style="height: 0.8em; \
width: {{ width }}%; background: {{ colour }}"></div></td>
</tr>
{% endfor %}
</table>
{% endfor %}
{% if rooflines %}
<pre style="margin: 0.5em 0; white-space: pre-wrap">{{ bounds | join("\\n") }}</pre>
{% endif %}
</div>
"""


def html(x: Explanation) -> str:
    """Return the explanation as HTML; everything of the user's is escaped."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    rooflines = [
        (
            k.name,
            [
                (
                    t.unit,
                    duration(t.seconds),
                    "binds" if t.binding else percent(t.share),
                    max(1, round(100 * t.share)),
                    "#b5452c" if t.binding else "#6f8fa8",
                )
                for t in k.terms
            ],
        )
        for k in x.cost.kernels
        if k.terms
    ]
    plain = [(title, lines) for title, lines in sections(x) if not title.startswith("Roofline of")]
    return page.from_string(TEMPLATE).render(
        x=x, plain=plain, rooflines=rooflines, bounds=list(bounds(x))
    )
