// What the viewer does, and the start.

/* --- the viewer -------------------------------------------------------------------------------------------- */

function toggle() {
  if (controller || retry) stop("Paused", now ? "" : "Paused");
  else connect();
}

$("toggle").addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("button, input")) return;
  event.preventDefault();
  toggle();
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  connect();
});

let hiddenWhileLive = false; // a hidden page frees its session for another viewer
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenWhileLive = Boolean(controller || retry);
    if (hiddenWhileLive) stop("Paused");
  } else if (hiddenWhileLive) {
    connect();
  }
});
addEventListener("resize", () => { chart(); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

chart();
if (still.matches) stop("Paused", "Press Play to start the animation.");
else connect();
requestAnimationFrame(animate);
