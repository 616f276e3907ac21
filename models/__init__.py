"""What is true about tutoring: pure values and functions, with no Faust, Kafka, PostgreSQL, clock or I/O."""
