"""How a report of findings looks: the page around them, and its style. No script, and nothing from elsewhere."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>MEDIC check: {title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="series">MEDIC <span>check of {title}</span></p>
<h1>{verdict}</h1>
{synthetic}
<dl>{facts}</dl>
{tiles}
</header>
{sections}
<footer>The pictures in this file are those of the set: keep it as you keep them. MEDIC is for teaching and research. It
is not a medical device.</footer>
</main>
</body>
</html>
"""

STYLE = """
:root { --paper: #f6f5f1; --card: #ffffff; --ink: #1d2329; --soft: #5d6670; --line: #dfddd5; --accent: #0b5f8a;
  --mend: #b3261e; --look: #0b5f8a; --frame: #efede6; --loud: #fff1cf; --loud-line: #d99a00; --loud-ink: #4d3800; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --card: #1c2228; --ink: #e6e8ea; --soft: #9ba5ae; --line: #303840; --accent: #77bfe8;
    --mend: #ff8a80; --look: #77bfe8; --frame: #12161a; --loud: #3a2e0c; --loud-line: #d99a00; --loud-ink: #ffe2a0; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
.series { margin: 0; font-weight: 700; letter-spacing: .08em; }
.series span { margin-left: .6rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
h1 { margin: .4rem 0 1.1rem; font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; letter-spacing: -.01em; }
.synthetic { margin: 0 0 1.25rem; padding: .8rem 1rem; border-left: 5px solid var(--loud-line); border-radius: 4px;
  background: var(--loud); color: var(--loud-ink); }
.synthetic strong { text-transform: uppercase; letter-spacing: .04em; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem 2rem; margin: 0; }
dt { font-size: .75rem; text-transform: uppercase; letter-spacing: .07em; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .6rem; margin: 1.6rem 0 0;
  padding: 0; list-style: none; }
.tiles a { display: block; height: 100%; padding: .6rem .8rem; border: 1px solid var(--line); border-left-width: 5px;
  border-radius: 6px; background: var(--card); color: var(--ink); font-size: .92rem; line-height: 1.3;
  text-decoration: none; }
.tiles .mend a { border-left-color: var(--mend); } .tiles .look a { border-left-color: var(--look); }
.tiles a:hover { border-color: var(--accent); }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { margin-top: 2.6rem; }
h2 { margin: 0; padding-top: .9rem; border-top: 3px solid var(--look); font-size: 1.25rem; line-height: 1.3; }
section.mend h2 { border-top-color: var(--mend); }
h2 small { margin-left: .3rem; font-weight: 400; font-size: 1rem; color: var(--soft); }
section > p { margin: .3rem 0 1rem; max-width: 48rem; color: var(--soft); }
section > p em { font-style: normal; color: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .9rem; }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
article { padding: .7rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
article > p { margin: .5rem 0 0; font-size: .88rem; color: var(--soft); overflow-wrap: anywhere; }
.group > div { display: grid; grid-template-columns: 1fr 1fr; gap: .7rem; }
figure { margin: 0; min-width: 0; }
img, .none { display: block; width: 100%; height: 11rem; border-radius: 4px; background: var(--frame); }
img { object-fit: contain; }
.none { display: grid; place-items: center; color: var(--soft); font-size: .88rem; }
figcaption { margin-top: .4rem; font-size: .88rem; line-height: 1.45; overflow-wrap: anywhere; }
code { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.marks { display: flex; flex-wrap: wrap; gap: .35rem; }
.marks span { padding: .05rem .55rem; border: 1px solid var(--mend); border-radius: 1rem; font-size: .82rem;
  color: var(--mend); }
.list { margin: 0; padding-left: 1.1rem; font-size: .92rem; overflow-wrap: anywhere; }
.list li { margin: .2rem 0; }
details { margin-top: .9rem; }
summary { cursor: pointer; color: var(--accent); }
details .list { margin-top: .5rem; columns: 22rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem;
  color: var(--soft); }
@media (max-width: 30rem) {
  main { padding: 1.4rem .9rem 2rem; }
  .series span { display: block; margin: 0; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .cards { grid-template-columns: 1fr; } }
@media print { article { break-inside: avoid; } }
"""
