"""`mme drift`: what a running endpoint's captured calls look like beside what its models were trained on."""
