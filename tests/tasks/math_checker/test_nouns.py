"""Words that may be the unit of an answer."""

from score_jax.tasks.math_checker import equality, nouns, units


def test_no_known_noun_changes_a_number_in_singular_and_plural():
  assert not [noun for noun in nouns.KNOWN if not any(map(units.is_unit, (noun, noun + 's')))]
  assert not nouns.KNOWN & {
    'googol',
    'permille',
    'twofold',
    'omitted',
    'dozen',
    'score',
    'fraction',
  }


def test_a_word_of_the_question_or_the_reference_may_be_the_unit():
  assert not equality.is_equal('5', r'5 \text{ zorks}')
  assert equality.is_equal('5', r'5 \text{ zorks}', 'How many zorks are there?')
  assert equality.is_equal(r'5 \text{ zorks}', r'5 \text{ zork}')
  assert not equality.is_equal('5', r'5 \text{ million}', 'Give the answer in million.')
