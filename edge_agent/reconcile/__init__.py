"""What is wanted against what runs: the pure planner, its values, and the hands that carry out its steps."""
