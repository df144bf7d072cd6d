"""Calls written down as SageMaker's data capture does, with what it leaves out: which model answered, and how."""
