"""`mme pipeline`: train, judge and register by themselves when data arrive, on SageMaker or on this machine."""
