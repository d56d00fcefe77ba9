"""The reference programs of MBPP and HumanEval pass, and fail when what they return is changed.

So they do in every form of answer_forms.py.
"""

import answer_forms
import pytest
from wrapped_references import grade, references, wrap, wrong_program


def check_references(grader, rows):
  verdicts = grader.grade([(row.tests, row.program) for row in rows])
  pairs = zip(rows, verdicts, strict=True)
  assert not [(row[0], verdict.reason) for row, verdict in pairs if verdict.reason != 'correct']


def check_changed(grader, rows, change):
  items = [(row.tests, wrong_program(row, change)) for row in rows]
  pairs = zip(rows, grader.grade(items), strict=True)
  assert not [row[0] for row, verdict in pairs if verdict.reward]


CHANGES = ['({}, "changed")', '({}, None)[1]', '[{}]']


def test_a_sample_of_the_references_passes_and_fails_when_changed(grader, data_dir):
  rows = list(references(data_dir))
  own_classes = ('MBPP/367 test_list', 'MBPP/601 test_list', 'MBPP/927 test_list')
  chosen = rows[::40] + [row for row in rows if row[0] in own_classes]
  check_references(grader, chosen)
  check_changed(grader, chosen, CHANGES[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_reference_passes(grader, data_dir):
  rows = list(references(data_dir))
  assert len(rows) == 974 + 11 + 164
  check_references(grader, rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('change', CHANGES)
def test_every_reference_fails_when_what_it_returns_is_changed(grader, data_dir, change):
  check_changed(grader, list(references(data_dir)), change)


def test_a_sample_of_the_references_is_found_in_every_form(data_dir):
  """As it was wrapped, so that it is graded as it is alone; what may differ is graded below."""
  rows = list(references(data_dir))[100::295]
  assert [row[0].partition('/')[0] for row in rows] == ['MBPP'] * 3 + ['HumanEval']
  wrapped = list(wrap(rows))
  assert len(wrapped) == 2 * (len(rows) * len(answer_forms.FORMS) + len(answer_forms.BODIES))
  lost = {one.form: one.text for one in wrapped if not one.is_whole}
  assert lost.keys() <= set(answer_forms.CHANGING), lost


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_references_in_every_form_are_graded_as_they_are_alone(grader, data_dir):
  counts = grade(grader, wrap(list(references(data_dir))[::8]))
  assert len(counts) == len(answer_forms.FORMS) + len(answer_forms.BODIES)
  assert all(wrong == 0 for _, _, wrong in counts.values()), counts
  right, total = (sum(count[i] for count in counts.values()) for i in (1, 0))
  assert right >= 0.999 * total, counts
