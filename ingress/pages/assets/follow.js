// Follows an attempt to connect: asks how it stands until it has ended. Without script the page reloads itself instead.
// It asks with what the page's own link says: a code that got lost is so handed on once more.
"use strict";

(() => {
  const outcome = document.querySelector("[data-follow]");
  if (!outcome) return;
  const parts = Object.fromEntries(["title", "text", "detail", "again"].map((id) => [id, document.getElementById(id)]));
  const PAUSE = 1000;
  const LONGEST_PAUSE = 10000;
  let pause = PAUSE;

  // Texts are set only when they change: each change is read out.
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
    element.hidden = !text;
  };

  const show = (view) => {
    document.title = document.title.replace(parts.title.textContent, view.title);
    write(parts.title, view.title);
    outcome.className = `message ${view.mood}`;
    write(parts.text, view.text);
    write(parts.detail, view.detail ?? "");
    parts.again.hidden = !view.again;
  };

  const ask = async () => {
    const answer = await fetch(outcome.dataset.follow + location.search, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.status === 400) return location.reload(); // signed out meanwhile: the page says it better
    if (!answer.ok) throw new Error(String(answer.status));
    const view = await answer.json();
    show(view);
    pause = PAUSE;
    if (view.follow) next();
  };

  const next = () => setTimeout(() => ask().catch(() => {
    pause = Math.min(pause * 2, LONGEST_PAUSE); // we are away for a moment
    next();
  }), pause);

  next();
})();
