"""Rehearsal doubles: stand-ins, on the lab's nodes, of programs that cannot be had here. Nothing else knows them."""
