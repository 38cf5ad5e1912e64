// The console's own script: keys for the theme's buttons, and buttons that copy. No page needs it to be read.
(() => {
  "use strict";

  // The theme makes buttons of elements that no keyboard reaches.
  const reachable = () => {
    for (const element of document.querySelectorAll("a:not([href])[x-on\\:click], span[x-on\\:click]")) {
      element.tabIndex = 0;
      element.setAttribute("role", "button");
    }
  };
  document.addEventListener("DOMContentLoaded", reachable);
  document.addEventListener("keydown", (event) => {
    const element = event.target;
    if ((event.key === "Enter" || event.key === " ") && element.matches("a:not([href])[role=button], span[role=button]")) {
      event.preventDefault();
      element.click();
    }
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const text = source.textContent.trim();
    const said = button.querySelector("[data-copied]") || button;
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied";
    } catch {
      // Not a secure origin, or not allowed: mark it, so that the keyboard copies it.
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      said.textContent = "Marked: press Ctrl+C";
    }
  });
})();
