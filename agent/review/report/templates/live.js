// A page that a server sends: it follows the server's events. The static report has no such script.
(() => {
  const live = document.getElementById("live");
  const own = live.dataset.tag;  // "" on the list of runs
  const state = document.getElementById("connection");

  const stamps = new Map([[own, live.dataset.stamp]]);  // of the ledgers that the page shows

  const text = async (path) => {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    return answer.text();
  };
  const panel = async () => { if (own) live.innerHTML = await text("/run/" + encodeURIComponent(own) + "/live"); };

  // replace <main>, and keep what the reader has opened, typed and chosen
  const refresh = async () => {
    const fresh = new DOMParser().parseFromString(await text(location.pathname), "text/html").querySelector("main");
    const old = document.querySelector("main");
    const key = (part) => [part.className, part.closest("tr, section")?.id, part.closest(".edit")?.querySelector(".number").textContent].join();
    const known = new Map([...old.querySelectorAll("details")].map((part) => [key(part), part.open]));
    for (const part of fresh.querySelectorAll("details")) if (known.has(key(part))) part.open = known.get(key(part));
    const fields = ["words", "outcome", "source"].map((id) => [id, document.getElementById(id)?.value ?? ""]);
    const focus = document.activeElement?.id, sorted = old.querySelector("th[aria-sort]"), place = sorted?.cellIndex ?? 0;
    const down = sorted?.getAttribute("aria-sort") === "descending";
    old.replaceWith(document.adoptNode(fresh));
    for (const [id, value] of fields) if (value && document.getElementById(id)) document.getElementById(id).value = value;
    document.documentElement.dispatchEvent(new Event("replaced"));
    const head = document.querySelectorAll("#table thead button")[place];
    if (head && (place || down)) { head.click(); if (down) head.click(); }
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  };
  // at once; while one refresh runs, any number of events cause one more
  let working = false, again = false;
  const soon = async () => {
    again = true;
    if (working) return;
    working = true;
    while (again) {
      again = false;
      await refresh().catch(() => stamps.clear());  // the next event tries again
      await new Promise((done) => setTimeout(done, 500));
    }
    working = false;
  };

  const follow = () => {
    const source = new EventSource("/events");
    source.onopen = () => { state.hidden = true; };
    source.onerror = () => { state.hidden = false; };
    source.onmessage = (event) => {
      const { tag, ledger } = JSON.parse(event.data);
      if (own && tag !== own) return;
      if (ledger !== stamps.get(tag)) soon();
      stamps.set(tag, ledger);
      panel().catch(() => {});
    };
  };
  follow();
})();
