"""What is wrong with a set-up, and what to do about it: each check looks at one thing and changes nothing."""
