"""Rehearsal double of hyper/docker-registry-web, for the lab's nodes: a page that lists what a registry holds."""
