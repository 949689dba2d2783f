"""Serves the pages on which a person corrects detections, on loopback only.

`folder` reads what there is to review, `store` keeps the verdicts, `pages`
makes the HTML, `media` reads the videos, and `server` answers the browser.
"""
