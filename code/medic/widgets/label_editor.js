/** The label editor's page: all it shows is `state`; what is done is sent to Python, which answers with a new state. */
function render({ model, el }) {
  const images = imagesOf(model);
  const state = () => model.get("state");
  const OUT = "(excluded)";
  const NONE = "(none)";
  const classes = () => state().counts.filter_label.filter(([name]) => name && name !== NONE);
  const words = { "": "all images", any: "anything suspicious", corrected: "label corrected", excluded: "left out" };
  const counted = (group) => state().counts.filter_suspicion.find(([name]) => name === group)[1];
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  // Who pages and labels faster than Python answers must not label the image that was there before: what is done waits
  // until the page shows what it was meant for, and what is done after it waits behind it.
  const queue = [];
  const shows = () => Object.entries({ position: state().position, ...state().filters }).every(([name, value]) => value === model.get(name));
  const drain = () => {
    while (queue.length && shows()) queue.shift()();
  };
  const act = (change) => {
    queue.push(() => (state().current || change.do === "undo") && page.send({ image: state().current?.image, ...change }));
    drain();
  };
  const turnTo = (where) => {
    const turn = () => set("position", Math.max(0, Math.min(where(model.get("position")), state().shown - 1)));
    if (queue.length) queue.push(turn);
    else turn();
  };
  const go = (position) => turnTo(() => position);
  const step = (by) => turnTo((position) => position + by);
  const label = (to) => act({ do: "label", to });
  const exclude = () => act({ do: "exclude" });
  const undo = () => act({ do: "undo" });

  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    Home: () => go(0),
    End: () => go(state().shown - 1),
    x: exclude,
    u: undo,
    "Ctrl+z": undo,
  };
  classes().slice(0, 9).forEach(([name], place) => (keys[place + 1] = () => label(name)));
  const page = frame("label-editor", model, keys);

  const filters = [
    ["filter_label", (name) => name || "all labels", choice("Label", (value) => set("filter_label", value))],
    ["filter_suspicion", (name) => words[name] ?? name.slice(8).replaceAll("_", " "), choice("Show", (value) => set("filter_suspicion", value))],
  ];
  const title = make("h3");
  const counts = make("p");
  const where = make("p", { class: "medic-where" });
  const large = make("div", { class: "medic-picture", "data-role": "large" });
  const about = make("div", { class: "medic-about" });
  const labels = make("div", { class: "medic-labels", role: "group" });
  const leave = make("button", { type: "button", "data-role": "exclude", onclick: exclude });
  const back = make("button", { type: "button", "data-role": "undo", onclick: undo }, "Undo", make("kbd", {}, "u"));
  const earlier = make("button", { type: "button", "aria-label": "Previous image", onclick: () => step(-1) }, "‹");
  const later = make("button", { type: "button", "aria-label": "Next image", onclick: () => step(1) }, "›");
  const strip = make("div", { class: "medic-strip", role: "group", "aria-label": "Images of this page" });
  const done = make("div", { class: "medic-done" });
  const buttons = classes().map(([name], place) =>
    make(
      "button",
      { type: "button", "data-label": name, onclick: () => label(name) },
      make("span", { class: "medic-name" }, name),
      make("span", { class: "medic-count" }),
      place < 9 ? make("kbd", {}, String(place + 1)) : null,
    ),
  );
  labels.append(...buttons);

  page.root.append(
    make("div", { class: "medic-head" }, title, counts),
    make("div", { class: "medic-bar" }, ...filters.map(([, , one]) => one.label), where),
    page.error,
    make(
      "div",
      { class: "medic-stage" },
      large,
      make("div", { class: "medic-panel" }, about, labels, make("div", { class: "medic-actions" }, leave, back), page.notice),
    ),
    make("div", { class: "medic-pager" }, earlier, strip, later),
    done,
  );

  function update() {
    const now = state();
    const { current } = now;
    title.textContent = now.title;
    page.root.setAttribute("aria-label", now.title);
    counts.textContent = `${counted("")} images · ${counted("corrected")} corrected · ${counted("excluded")} left out`;
    for (const [trait, text, one] of filters) one.update(now.counts[trait].map(([name, count]) => [name, text(name), count]), model.get(trait));
    where.textContent = now.shown ? `${now.position + 1} of ${now.shown}` : "no image passes these filters";
    earlier.disabled = !current || now.position === 0;
    later.disabled = !current || now.position === now.shown - 1;
    labels.setAttribute("aria-label", now.several ? "Findings" : "Label");
    const out = current?.label === OUT;
    classes().forEach(([name, count], place) => {
      buttons[place].setAttribute("aria-pressed", String(Boolean(current?.label.split("|").includes(name))));
      buttons[place].querySelector(".medic-count").textContent = count;
      buttons[place].disabled = !current || (now.several && out);
    });
    leave.disabled = !current;
    leave.replaceChildren(out ? "Take in again" : "Leave out", make("kbd", {}, "x"));
    leave.setAttribute("aria-pressed", String(out));
    if (current) {
      images.show(large, current.image, "large", `${current.image}, ${current.label}`);
      redraw(about, ...told(current));
    } else {
      large.replaceChildren();
      delete large.dataset.image;
      redraw(about);
    }
    large.classList.toggle("medic-out", out);
    redraw(strip, ...now.strip.map((card, place) => thumbnail(card, now.start + place, now.position)));
    const next = now.strip[now.position - now.start + 1];
    if (next) images.expect(next.image, "large");
    redraw(
      done,
      make("p", { class: "medic-hint" }, now.changes ? `${now.file}: ${now.changes} change${now.changes === 1 ? "" : "s"}` : `Changes go to ${now.file}; the images and their table stay as they are.`),
      make("p", { class: "medic-hint" }, "Keys: ← and → to page, 1 to 9 for a label, x to leave out, u or Ctrl+Z to undo."),
    );
    page.said(now);
    drain();
  }

  function told(current) {
    const changed = current.amiss && current.label !== OUT ? make("p", { class: "medic-changed" }, `was ${current.original}`) : null;
    const findings = current.findings.map(([kind, detail]) => make("li", {}, make("b", {}, kind), detail ? `: ${detail}` : ""));
    return [
      make("h4", {}, current.image),
      make("p", { class: "medic-label" }, current.label === OUT ? "left out" : current.label),
      changed,
      listOf(current.facts),
      findings.length ? make("ul", { class: "medic-findings", "aria-label": "Findings about this image" }, ...findings) : null,
    ];
  }

  function thumbnail(card, place, position) {
    const out = card.label === OUT;
    const marks = [out && "left out", card.amiss && !out && "corrected", card.findings.length && "suspicious"].filter(Boolean);
    const holder = make("span", { class: "medic-picture" });
    images.show(holder, card.image, "thumbnail", "");
    return make(
      "button",
      {
        type: "button",
        "data-key": card.image,
        class: marks.map((mark) => `medic-${mark.replace(" ", "-")}`).join(" "),
        "aria-current": place === position ? "true" : null,
        "aria-label": [card.image, card.label, ...marks].join(", "),
        title: card.image,
        onclick: () => go(place),
      },
      holder,
      make("span", { class: "medic-under" }, out ? "left out" : card.label),
    );
  }

  model.on("change:state", update);
  update();
  el.append(page.root);
  return () => {
    model.off("change:state", update);
    images.close();
  };
}

export default { render };
