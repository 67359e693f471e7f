"""OpenAI-style graders in their published JSON forms: string_check, text_similarity, python, score_model, label_model, multi."""

from framework.rewards.graders.forms import Graded, grade, read_grader
from framework.rewards.graders.grading import PYTHON_VARIABLE, GradeError, Grader, Means, sample_of
from framework.rewards.graders.reward import Graders

__all__ = ["PYTHON_VARIABLE", "GradeError", "Graded", "Grader", "Graders", "Means", "grade", "read_grader", "sample_of"]
