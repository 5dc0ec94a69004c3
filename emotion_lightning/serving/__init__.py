"""A finished run answers over HTTP: processes that compute, an application in front of them, and a page to try."""
