"""The rehearsal: what the site will do, done here first in an empty place, and a record of what came out."""
