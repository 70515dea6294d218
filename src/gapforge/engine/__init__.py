"""What runs the Dockerfile, behind one small Protocol."""
