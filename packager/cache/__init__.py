"""What was made once and is good for every later build."""
