"""Images with a target's build dependencies installed: built every night and on request, and chosen for builds."""
