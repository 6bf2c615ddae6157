// Runs before the first paint, so that a chosen scheme does not flash the other one.
try {
  const chosen = localStorage.getItem("fishserve.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is switched off: the system's scheme it is.
}
