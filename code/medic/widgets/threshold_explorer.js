/** The threshold explorer's page. Python sends the curves once a finding; what the slider does is computed here. */
const SIDE = 210;
const LEFT = 40;
const TOP = 10;
const BARS = 40;

/** Two axes from 0 to 1 with their names, a curve, the operating point (a ring) and the present point (a dot). */
function panel(across, up, name) {
  const x = (share) => LEFT + share * SIDE;
  const y = (share) => TOP + (1 - share) * SIDE;
  const curve = draw("path", { class: "medic-curve" });
  const chance = draw("path", { class: "medic-chance" });
  const ring = draw("circle", { class: "medic-ring", r: 7 });
  const dot = draw("circle", { class: "medic-dot", r: 5.5 });
  const caption = make("figcaption");
  const ticks = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    draw("path", { class: "medic-rule", d: `M${x(0)} ${y(share)}H${x(1)}M${x(share)} ${y(0)}V${y(1)}` }),
    share % 0.5 ? null : draw("text", { x: x(share), y: y(0) + 15, "text-anchor": "middle" }, String(share)),
    share % 0.5 ? null : draw("text", { x: x(0) - 6, y: y(share) + 4, "text-anchor": "end" }, String(share)),
  ]);
  const picture = draw(
    "svg",
    { viewBox: `0 0 ${LEFT + SIDE + 12} ${TOP + SIDE + 38}`, role: "img" },
    ...ticks,
    draw("text", { x: x(0.5), y: y(0) + 32, "text-anchor": "middle", class: "medic-axis" }, across),
    draw("text", { transform: `translate(11 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle", class: "medic-axis" }, up),
    chance, curve, ring, dot,
  );
  const place = (mark, point) => {
    mark.style.display = point.every(Number.isFinite) ? "" : "none";
    if (point.every(Number.isFinite)) {
      mark.setAttribute("cx", x(point[0]));
      mark.setAttribute("cy", y(point[1]));
    }
  };
  return {
    figure: make("figure", {}, caption, picture),
    line(points, level, words) {
      caption.replaceChildren(name, make("small", {}, words));
      curve.setAttribute("d", points.map(([right, high], at) => `${at ? "L" : "M"}${x(right).toFixed(1)} ${y(high).toFixed(1)}`).join(""));
      chance.setAttribute("d", level === null ? `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` : `M${x(0)} ${y(level)}H${x(1)}`);
    },
    ring: (point) => place(ring, point),
    dot(point) {
      place(dot, point);
      const [right, high] = point.map((share) => (Number.isFinite(share) ? share.toFixed(2) : "none"));
      picture.setAttribute("aria-label", `${name}: ${across} ${right}, ${up} ${high}`);
    },
  };
}

/** Points of a curve without those that lie on one pixel: a set of thousands draws as fast as one of dozens. */
function thinned(points) {
  const kept = [points[0]];
  for (const point of points.slice(1, -1)) {
    const [right, high] = kept[kept.length - 1];
    if (Math.abs(point[0] - right) + Math.abs(point[1] - high) > 0.002) kept.push(point);
  }
  return [...kept, points[points.length - 1]];
}

function render({ model, el }) {
  const state = () => model.get("state");
  const all = () => ({ present: state().found.at(-1), absent: state().alarms.at(-1) });
  const keep = frame("threshold-explorer", model, {});
  const roc = panel("1 - specificity", "sensitivity", "ROC curve");
  const precise = panel("sensitivity", "precision", "PR curve");
  const title = make("h3");
  const counts = make("p");
  const finding = choice("Finding", (value) => {
    model.set("finding", value);
    model.save_changes();
  });
  const slider = make("input", { type: "range", class: "medic-slider", "aria-label": "Threshold", oninput: () => move(Number(slider.value)), onkeydown: onKey });
  const exact = make("input", { type: "number", min: 0, max: 1, step: "any", "aria-label": "Threshold as a number", onchange: () => typed(exact, move) });
  const reset = make("button", { type: "button", onclick: () => move(state().operating_point) });
  const bars = draw("svg", { viewBox: "0 0 400 64", preserveAspectRatio: "none", "aria-hidden": "true", class: "medic-scores" });
  const line = draw("path", { class: "medic-line", "vector-effect": "non-scaling-stroke" });
  const cells = Object.fromEntries(["found", "missed", "alarms", "rejected"].map((name) => [name, make("td", { "data-cell": name })]));
  const heads = [0, 1, 2, 3].map(() => make("th"));
  const figures = Object.fromEntries(["sensitivity", "specificity", "precision", "npv"].map((name) => [name, make("dd", { "data-figure": name })]));
  const share = make("input", { type: "number", min: 0.001, max: 99.999, step: "any", "aria-label": "Prevalence in percent", onchange: () => typed(share, (value) => people(value / 100)) });
  const thousand = make("p", { class: "medic-thousand", "aria-live": "polite" });
  let threshold = model.get("threshold");
  let pending = false;

  heads.forEach((head, at) => head.setAttribute("scope", at < 2 ? "col" : "row"));
  const told = (name, meaning, value) => make("div", {}, make("dt", {}, name, make("small", {}, meaning)), value);
  keep.root.append(
    make("div", { class: "medic-head" }, title, counts),
    make("div", { class: "medic-bar" }, finding.label, make("label", { class: "medic-choice" }, make("span", {}, "Threshold"), exact), reset),
    keep.error,
    make("div", { class: "medic-spread" }, bars, slider, make("p", { class: "medic-hint medic-legend" }, make("span", { class: "medic-up" }, "images with it"), make("span", { class: "medic-down" }, "images without it"))),
    make(
      "div",
      { class: "medic-panels" },
      roc.figure,
      precise.figure,
      make(
        "div",
        { class: "medic-decided" },
        make(
          "table",
          {},
          make("caption", {}, "Confusion matrix"),
          make("thead", {}, make("tr", {}, make("td", {}), heads[0], heads[1])),
          make("tbody", {}, make("tr", {}, heads[2], cells.missed, cells.found), make("tr", {}, heads[3], cells.rejected, cells.alarms)),
        ),
      ),
    ),
    make(
      "dl",
      { class: "medic-figures" },
      told("Sensitivity", "of those with it, found", figures.sensitivity),
      told("Specificity", "of those without it, left in peace", figures.specificity),
      told("Precision", "of those called, with it", figures.precision),
      told("Negative predictive value", "of those not called, without it", figures.npv),
    ),
    make("div", { class: "medic-people" }, make("label", { class: "medic-choice" }, make("span", {}, "Of 1000 people, if"), share, make("span", {}, "% have it:")), thousand),
    keep.notice,
  );

  /** How many different scores reach the threshold; compared in single precision, as Python does. */
  function reached(value) {
    const { scores } = state();
    const limit = Math.fround(value);
    let [low, high] = [0, scores.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] >= limit) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** A threshold that exactly so many of the scores reach: half way between two of them. */
  function between(count) {
    const { scores } = state();
    if (count <= 0) return Math.min(1, scores[0] + (1 - scores[0]) / 2);
    if (count >= scores.length) return scores[scores.length - 1] / 2;
    return (scores[count - 1] + scores[count]) / 2;
  }

  function matrix(value) {
    const { present, absent } = all();
    const count = reached(value);
    const [found, alarms] = count ? [state().found[count - 1], state().alarms[count - 1]] : [0, 0];
    const [missed, rejected] = [present - found, absent - alarms];
    return {
      found, alarms, missed, rejected,
      sensitivity: found / present,
      specificity: rejected / absent,
      precision: found / (found + alarms),
      npv: rejected / (rejected + missed),
    };
  }

  function onKey(event) {
    const pace = Math.max(1, Math.round(state().scores.length / 200));
    const by = { ArrowRight: -1, ArrowUp: -1, ArrowLeft: 1, ArrowDown: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(between(Math.max(0, Math.min(reached(threshold) + by * pace, state().scores.length))));
  }

  function typed(input, act) {
    const value = Number(input.value);
    if (input.value !== "" && input.checkValidity() && Number.isFinite(value)) act(value);
    else update();
  }

  function move(value) {
    threshold = value;
    decide();
    model.set("threshold", value);
    // A slider moves more often than Python needs to hear of it.
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      model.save_changes();
    });
  }

  function people(value) {
    model.set("prevalence", value);
    model.save_changes();
    decide();
  }

  function decide() {
    const { present, absent } = all();
    const one = matrix(threshold);
    const words = Number(threshold.toPrecision(4));
    slider.value = threshold;
    slider.setAttribute("aria-valuetext", `${words}: sensitivity ${percent(one.sensitivity)}, specificity ${percent(one.specificity)}`);
    if (document.activeElement !== exact || Number(exact.value) !== threshold) exact.value = words;
    const [low, high] = [Number(slider.min), Number(slider.max)];
    const at = (400 * (threshold - low)) / (high - low);
    line.setAttribute("d", `M${at} 0V64`);
    roc.dot([1 - one.specificity, one.sensitivity]);
    precise.dot([one.sensitivity, one.precision]);
    const rows = { found: present, missed: present, alarms: absent, rejected: absent };
    for (const [name, cell] of Object.entries(cells)) {
      const part = one[name] / rows[name];
      cell.replaceChildren(make("b", {}, String(one[name])), make("small", {}, percent(part)));
      const shade = ["found", "rejected"].includes(name) ? "--medic-shade" : "--medic-shade-wrong";
      cell.style.background = `rgba(var(${shade}), ${0.08 + 0.5 * part})`;
    }
    for (const [name, place] of Object.entries(figures)) place.textContent = percent(one[name]);
    const prevalence = model.get("prevalence");
    const round = (number) => (number && number < 9.5 ? number.toFixed(1) : number.toFixed(0));
    const [hits, alarms] = [1000 * prevalence * one.sensitivity, 1000 * (1 - prevalence) * (1 - one.specificity)];
    const missed = 1000 * prevalence - hits;
    thousand.textContent = `${round(hits)} found, ${round(missed)} missed, ${round(alarms)} false alarms; precision ${percent(hits / (hits + alarms))}.`;
  }

  function update() {
    const now = state();
    const { present, absent } = all();
    threshold = model.get("threshold");
    title.textContent = now.title;
    keep.root.setAttribute("aria-label", `Threshold for ${now.finding}: ${now.title}`);
    counts.textContent = `${now.finding}: ${present} images with it, ${absent} without`;
    finding.label.hidden = now.findings.length < 2;
    finding.update(now.findings.map((name) => [name, name]), now.finding);
    const [highest, lowest] = [now.scores[0], now.scores.at(-1)];
    const pad = Math.max(0.02 * (highest - lowest), 1e-6);
    slider.min = Math.max(0, Math.min(lowest - pad, now.operating_point, threshold));
    slider.max = Math.min(1, Math.max(highest + pad, now.operating_point, threshold));
    slider.step = "any";
    reset.textContent = `Operating point ${Number(now.operating_point.toPrecision(3))}`;
    heads.forEach((head, at) => (head.textContent = ["not called", "called", `with (${present})`, `without (${absent})`][at]));
    const points = now.scores.map((_, at) => [now.alarms[at] / absent, now.found[at] / present]);
    roc.line(thinned([[0, 0], ...points]), null, `area ${now.auroc.toFixed(3)}`);
    const exactly = now.found.map((found, at) => [found / present, found / (found + now.alarms[at])]);
    const stairs = exactly.flatMap(([right, high], at) => [[at ? exactly[at - 1][0] : 0, high], [right, high]]);
    precise.line(thinned(stairs), present / (present + absent), `average precision ${now.average_precision.toFixed(3)}`);
    const start = matrix(now.operating_point);
    roc.ring([1 - start.specificity, start.sensitivity]);
    precise.ring([start.sensitivity, start.precision]);
    histogram(now);
    if (document.activeElement !== share) share.value = Number((100 * model.get("prevalence")).toPrecision(3));
    decide();
    keep.said(now);
  }

  /** Scores of the images with the finding upwards, of those without downwards, each to its own height. */
  function histogram(now) {
    const [low, high] = [Number(slider.min), Number(slider.max)];
    const shapes = [["present", now.found, -1], ["absent", now.alarms, 1]].flatMap(([name, reaching, way]) => {
      const tally = new Array(BARS).fill(0);
      now.scores.forEach((score, at) => {
        const place = Math.floor((BARS * (score - low)) / (high - low));
        tally[Math.min(place, BARS - 1)] += reaching[at] - (at ? reaching[at - 1] : 0);
      });
      const most = Math.max(...tally, 1);
      return tally.map((count, at) => {
        const height = (30 * count) / most;
        return draw("rect", { class: `medic-${name}`, x: (400 * at) / BARS, width: 400 / BARS - 0.6, height, y: way < 0 ? 32 - height : 32 });
      });
    });
    bars.replaceChildren(...shapes, draw("path", { class: "medic-rule", d: "M0 32H400" }), line);
  }

  const follow = () => {
    if (model.get("threshold") === threshold) return;
    threshold = model.get("threshold");
    const outside = threshold < Number(slider.min) || threshold > Number(slider.max);
    if (outside) update();
    else decide();
  };
  const followShare = () => {
    if (document.activeElement !== share) share.value = Number((100 * model.get("prevalence")).toPrecision(3));
    decide();
  };
  model.on("change:state", update);
  model.on("change:threshold", follow);
  model.on("change:prevalence", followShare);
  update();
  el.append(keep.root);
  return () => {
    model.off("change:state", update);
    model.off("change:threshold", follow);
    model.off("change:prevalence", followShare);
  };
}

export default { render };
