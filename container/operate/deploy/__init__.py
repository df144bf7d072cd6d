"""`mme deploy`: an endpoint on SageMaker out of one file."""
