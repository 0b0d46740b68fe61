// No module script runs in a page that is opened as a file; this plain one lets the page say so.
if (location.protocol === "file:") document.documentElement.className = "as-file";
