"""Behind SageMaker's Mode=MultiModel, where the platform names, loads and unloads models."""
