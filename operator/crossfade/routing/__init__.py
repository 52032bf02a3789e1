"""Routers: from a wanted split to one write of a route, and back. Pure."""
