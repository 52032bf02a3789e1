"""What is posted to receivers and gates, and the posting."""
