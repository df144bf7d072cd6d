"""A command of ours as a job on SageMaker: what is asked for, that it is started once, and followed to its end."""
