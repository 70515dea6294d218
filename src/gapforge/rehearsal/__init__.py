"""Rehearse on the online machine what a site will do, in an empty folder, and record the result."""
