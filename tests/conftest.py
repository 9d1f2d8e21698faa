"""What tests of several folders share; this file's folder is on the import path through it."""
