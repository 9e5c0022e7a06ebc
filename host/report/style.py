"""How the page looks, in light and in dark."""

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1a2230; --muted: #687386; --line: #e3e7ee; --accent: #1f6feb;
  --faint: #1f6feb40; --area: #1f6feb14; --free: #e9edf3; --l: 78%; --c: 62%; --on: #1a2230;
  --params: #1f6feb; --state: #8250df; --activations: #1a9e77; --scratch: #7bc8a4; --stack: #e08a1e;
  --session: #98a4b5; --code: #5b6b82; --constants: #1f6feb; --good: #1a7f4b; --bad: #c03434; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0d1117; --card: #161c26; --ink: #e4e9f1; --muted: #8f9bae; --line: #2a3342; --accent: #6cb0ff;
  --faint: #6cb0ff40; --area: #6cb0ff1c; --free: #232c3a; --l: 36%; --c: 42%; --on: #eef2f8;
  --params: #4c94f5; --state: #a07bf0; --activations: #2fb98d; --scratch: #4f8f75; --stack: #e8a04a;
  --session: #5e6b80; --code: #7787a0; --constants: #4c94f5; --good: #4cc38a; --bad: #f07878; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 28px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.02em; }
h2 { font-size: 18px; margin: 0 0 16px; letter-spacing: -0.01em; }
h3 { font-size: 14px; margin: 0 0 8px; display: flex; justify-content: space-between; gap: 12px; flex-wrap: wrap; }
h3 .muted { font-weight: 400; }
p { margin: 0 0 10px; }
code, pre, td.mono { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 12px 0 0; padding: 14px 16px; overflow-x: auto; background: var(--page); border-radius: 8px; }
.muted { color: var(--muted); }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; font-size: 13px; font-weight: 600;
  border: 1px solid currentColor; }
.done { color: var(--good); } .failed, .interrupted { color: var(--bad); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 22px 24px; margin-top: 22px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-top: 26px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px 18px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13px; }
.tile.first b { color: var(--accent); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 28px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .faint { fill: none; stroke: var(--faint); stroke-width: 1.2; }
svg .strong { fill: none; stroke: var(--accent); stroke-width: 2.4; stroke-linejoin: round; }
svg .area { fill: var(--area); } svg .dot { fill: var(--accent); stroke: var(--card); stroke-width: 1.5; }
svg .buffer rect { fill: hsl(var(--hue) var(--c) var(--l)); }
svg .buffer text { fill: var(--on); font-size: 11px; }
svg .buffer:hover rect { stroke: var(--ink); }
svg.arena > text { font-size: 11px; }
figure { margin: 0; overflow-x: auto; } figcaption { color: var(--muted); font-size: 13px; margin-top: 4px; }
figure svg { min-width: 720px; }
.fill { margin-bottom: 20px; }
.bar { display: flex; height: 26px; border-radius: 7px; overflow: hidden; background: var(--free); }
.part { display: block; } .part.free { background: var(--free); }
.part.parameters { background: var(--params); } .part.state { background: var(--state); }
.part.activations { background: var(--activations); } .part.scratch { background: var(--scratch); }
.part.stack { background: var(--stack); } .part.session { background: var(--session); }
.part.code { background: var(--code); } .part.constants { background: var(--constants); opacity: .75; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; padding: 0; font-size: 13px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.legend b { margin-left: 7px; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--muted); font-weight: 500; font-size: 13px; padding: 6px 12px; border-bottom: 1px solid var(--line); }
td { padding: 6px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.share { position: relative; min-width: 120px; } .share i { display: block; height: 8px; margin-top: 7px; border-radius: 4px;
  background: var(--accent); min-width: 2px; }
.facts td:first-child { color: var(--muted); white-space: nowrap; width: 1%; }
.facts td { overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--accent); margin-top: 14px; }
footer { color: var(--muted); font-size: 13px; margin-top: 26px; }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
