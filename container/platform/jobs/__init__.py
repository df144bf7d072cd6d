"""Jobs: programs that SageMaker starts on hosts of their own, with S3 brought to /opt/ml before and taken from there after.

    processing, training, transform   what a request asks for, and what is refused
      -> plan                         the same for all: hosts, program, inputs, outputs, limits
      -> life                         a job's states, on a thread of its own
           -> channels, tree          what a host finds below /opt/ml
           -> host                    its process, in a mount namespace where that is permitted
           -> uploads, logs           what leaves it

Rule: what a program sees and how it is ended is SageMaker's; how long SageMaker takes for it is not.
"""
