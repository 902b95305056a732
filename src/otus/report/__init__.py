"""What people see at the end: the leader board for the terminal and the self-contained HTML report."""
