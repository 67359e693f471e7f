"""What a policy may be trained on: `reward=gold|proxy|composite|graders|judge|bradley_terry|ensemble`. Evaluation is always by the domain's own reward."""
