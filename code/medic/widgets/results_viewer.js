/** The results viewer's page: a grid, or one image large; filters and the page are traits, what is shown is `state`. */
function render({ model, el }) {
  const images = imagesOf(model);
  const state = () => model.get("state");
  const set = (traits) => {
    for (const [name, value] of Object.entries(traits)) model.set(name, value);
    model.save_changes();
  };
  const turn = (by) => {
    const position = model.get("position") + by * state().page;
    if (position >= 0 && position < state().shown) set({ position });
  };
  const beside = (which) => state().detail?.[which] && set({ chosen: state().detail[which] });
  let opened = "";
  const close = () => {
    opened = model.get("chosen");
    set({ chosen: "" });
  };

  /** In the grid arrows move from image to image, beside a large image to the one before or behind it. */
  const move = (by) => {
    if (state().detail) return beside(by < 0 ? "previous" : "next");
    const cards = [...grid.children];
    const at = cards.indexOf(document.activeElement);
    const to = at < 0 ? 0 : at + by;
    if (to < 0 || to >= cards.length) return turn(Math.sign(by));
    return cards[to].focus();
  };
  const row = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const frameOf = frame("results-viewer", model, {
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    ArrowUp: () => move(-row()),
    ArrowDown: () => move(row()),
    PageUp: () => turn(-1),
    PageDown: () => turn(1),
    Escape: close,
  });

  const finding = choice("Finding", (value) => set({ finding: value }));
  const outcome = choice("Outcome", (value) => set({ outcome: value }));
  const order = choice("Order", (value) => set({ order: value }));
  const title = make("h3");
  const counts = make("p");
  const threshold = make("span", { class: "medic-hint" });
  const grid = make("div", { class: "medic-grid", role: "group", "aria-label": "Images" });
  const empty = make("p", { class: "medic-hint" }, "No image passes these filters.");
  const earlier = make("button", { type: "button", onclick: () => turn(-1) }, "‹ Previous page");
  const later = make("button", { type: "button", onclick: () => turn(1) }, "Next page ›");
  const where = make("span");
  const pager = make("div", { class: "medic-bar medic-turn" }, earlier, where, later);
  const large = make("div", { class: "medic-picture", "data-role": "large" });
  const about = make("div", { class: "medic-panel" });
  const back = make("button", { type: "button", "data-key": "back", onclick: close }, "Back to the grid", make("kbd", {}, "Esc"));
  const previous = make("button", { type: "button", "data-key": "previous", onclick: () => beside("previous") }, "‹ Previous");
  const next = make("button", { type: "button", "data-key": "next", onclick: () => beside("next") }, "Next ›");
  const detail = make(
    "div",
    { class: "medic-detail", role: "group", "aria-label": "One image" },
    make("div", { class: "medic-bar" }, back, previous, next),
    make("div", { class: "medic-stage" }, large, about),
  );

  frameOf.root.append(
    make("div", { class: "medic-head" }, title, counts),
    make(
      "div",
      { class: "medic-bar" },
      finding.label, outcome.label, order.label, threshold,
    ),
    frameOf.error, grid, empty, pager, detail,
  );

  function update() {
    const now = state();
    title.textContent = now.title;
    frameOf.root.setAttribute("aria-label", now.title);
    counts.textContent = `${now.shown} of ${now.outcomes[0][2]} images`;
    finding.label.hidden = !now.findings.length;
    finding.update(now.findings.map((name) => [name, name]), model.get("finding"));
    outcome.update(now.outcomes, model.get("outcome"));
    order.update(now.orders.map((name) => [name, name]), model.get("order"));
    threshold.textContent = now.operating_point === null ? "" : `${model.get("finding")} from ${Number(model.get("threshold").toPrecision(3))} on`;
    const single = Boolean(now.detail);
    const appeared = single && detail.hidden;
    grid.hidden = pager.hidden = single;
    empty.hidden = single || now.shown > 0;
    detail.hidden = !single;
    const position = model.get("position");
    where.textContent = `page ${1 + Math.floor(position / now.page)} of ${Math.max(1, Math.ceil(now.shown / now.page))}`;
    earlier.disabled = position < now.page;
    later.disabled = position + now.page >= now.shown;
    redraw(grid, ...now.cards.map(card));
    if (single) {
      images.show(large, now.detail.image, "large", `${now.detail.image}: ${now.detail.truth}, decided ${now.detail.decided}`);
      redraw(about, ...told(now.detail));
      previous.disabled = !now.detail.previous;
      next.disabled = !now.detail.next;
      if (now.detail.next) images.expect(now.detail.next, "large");
      if (appeared) back.focus({ preventScroll: true });
    } else if (opened) {
      [...grid.children].find((one) => one.dataset.key === opened)?.focus({ preventScroll: true });
      opened = "";
    }
    frameOf.said(now);
  }

  function card(one) {
    const holder = make("span", { class: "medic-picture" });
    images.show(holder, one.image, "thumbnail", "");
    const sure = percent(one.confidence);
    return make(
      "button",
      {
        type: "button",
        "data-key": one.image,
        class: one.amiss ? "medic-amiss" : "medic-right",
        "aria-label": `${one.image}: ${one.outcome}, truth ${one.truth}, decided ${one.decided}, ${sure}`,
        title: one.image,
        onclick: () => set({ chosen: one.image }),
      },
      holder,
      make("span", { class: "medic-verdict" }, make("b", { "aria-hidden": "true" }, one.amiss ? "✕ " : "✓ "), one.amiss ? `${one.truth} → ${one.decided}` : one.truth),
      make("span", { class: "medic-sure" }, make("i", { style: `width: ${100 * one.confidence}%` }), make("span", {}, sure)),
    );
  }

  function told(one) {
    const bars = one.bars.map(([name, share, present]) =>
      make(
        "div",
        { class: present ? "medic-row medic-true" : "medic-row" },
        make("span", { class: "medic-name" }, name, present ? make("b", { class: "medic-badge" }, "truth") : ""),
        make("span", { class: "medic-track" }, make("i", { style: `width: ${100 * share}%` })),
        make("span", { class: "medic-value" }, percent(share)),
      ),
    );
    return [
      make("h4", {}, one.image),
      make("p", { class: one.amiss ? "medic-outcome medic-amiss" : "medic-outcome" }, `${one.amiss ? "✕" : "✓"} ${one.outcome}`),
      make("p", {}, `Truth: ${one.truth}. Decided: ${one.decided}, with ${percent(one.confidence)}.`),
      make("div", { class: "medic-bars", role: "group", "aria-label": "Probabilities" }, ...bars),
      listOf(one.facts),
    ];
  }

  model.on("change:state", update);
  update();
  el.append(frameOf.root);
  return () => {
    model.off("change:state", update);
    images.close();
  };
}

export default { render };
