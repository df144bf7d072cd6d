"""`mme train`: a model for each segment out of one set of tables, judged beside what is live, into a candidate release."""
