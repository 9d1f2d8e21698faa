// Frames as high as what they hold; everything unfolded on paper.
const fit = (frame) => {
  const page = frame.contentDocument && frame.contentDocument.documentElement;
  if (page) frame.style.height = `${page.offsetHeight + frame.offsetHeight - frame.clientHeight + 16}px`; // and its padding
};
for (const frame of document.querySelectorAll("iframe")) {
  frame.addEventListener("load", () => fit(frame));
  fit(frame);
}
addEventListener("resize", () => document.querySelectorAll("iframe").forEach(fit));
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
