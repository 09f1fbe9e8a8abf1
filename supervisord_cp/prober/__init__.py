"""Looks after engines that someone else started: are they there, and how loaded are they."""
