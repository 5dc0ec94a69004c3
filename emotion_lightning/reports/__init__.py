"""Reports: tables on the console, HTML and Markdown pages, and charts."""
